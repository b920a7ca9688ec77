"""What users do, one journey per file."""
