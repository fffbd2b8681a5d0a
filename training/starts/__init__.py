"""Where learning a table begins: schedules and the search for the best baseline."""
