"""Where learning a table begins: schedules, other models' patterns, and their ranking."""
