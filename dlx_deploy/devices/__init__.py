"""Where a package can be run and measured: this machine, and whatever else comes to be reachable."""
