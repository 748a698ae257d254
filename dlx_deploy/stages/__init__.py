"""One file per stage: its specification and a thin run(). Heavy libraries are imported inside run()."""
