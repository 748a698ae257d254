"""What a data set is like, before anything is built of it: ``dlx-deploy data``."""
