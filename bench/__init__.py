"""`make bench`: wsm against its peers on this machine, in the same run; bench/README.md has the table."""
