"""What a dataset looks like: statistics, pictures with their regions, HTML pages. Changes no record."""
