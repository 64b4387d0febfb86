"""Training of both views: the demo base model and the distilled diffusion view."""
