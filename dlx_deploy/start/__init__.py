"""A configuration that fits the data, the machine and the time there is: what ``dlx-deploy init --data`` writes."""
