"""PostgreSQL: the truth. Queries by name in `queries/`, migrations, row-level security in every table."""
