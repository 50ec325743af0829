"""Tables in Parquet, Arrow and Feather files."""
