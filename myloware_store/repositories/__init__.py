"""The operations on the tables, one class over the database for each part of the domain."""
