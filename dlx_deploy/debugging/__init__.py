"""Why a package is less accurate than the network that it was made of: both side by side, on the same samples."""
