"""From a user's table to a posterior of a group."""
