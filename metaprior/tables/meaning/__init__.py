"""What each column of a table means: numbers, dates, hours, names; and what is odd about it."""
