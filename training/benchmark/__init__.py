"""Learned tables against the classical ones, and what people look at: reports and pages."""
