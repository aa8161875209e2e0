"""What was used and what it cost: records, prices, the ledger in the database, its writer, and reports."""
