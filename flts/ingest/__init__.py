"""Read an uploaded file to arrays. A file that cannot be read or trained on is refused with the name of the field.

Importing the package imports none of its modules, because inference and the command line use `flts.ingest.cell`
without pyarrow.
"""
