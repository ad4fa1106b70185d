"""What ships: the image, the compose stack, the manifests for Kubernetes, and their policies."""
