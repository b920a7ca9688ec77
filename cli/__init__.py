"""`flts`: the command line over the gateway's API."""
