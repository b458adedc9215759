"""What a phantom is painted with: form, skin, features, hair, light."""
