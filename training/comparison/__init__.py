"""Every row of the retrieval tables on one harness: which rows, training and scoring them, tables and the report."""
