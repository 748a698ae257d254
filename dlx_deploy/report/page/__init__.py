"""The report of a build that people read and sign: verdicts, what each stage gave, where it comes from."""
