"""Data set curation: rows in, fewer or better rows out, and a ledger of every one of them."""
