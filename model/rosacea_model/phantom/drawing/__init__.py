"""The parts of a phantom's picture: form, skin, features, hair, light."""
