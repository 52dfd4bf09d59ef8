"""Measures keyrelay beside what else can be put in its place, on one machine and in one go."""
