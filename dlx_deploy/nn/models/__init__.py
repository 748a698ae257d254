"""Networks by name: the CIFAR ResNet family, torchvision's classifiers, and functions in a user's file."""
