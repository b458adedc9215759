"""Finds pictures not to train on: near duplicates, bars over eyes, enlargements; and selects the hold-out."""
