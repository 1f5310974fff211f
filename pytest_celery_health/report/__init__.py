"""What a health run tells: the terminal's section, the progress of a wait, JUnit's evidence."""
