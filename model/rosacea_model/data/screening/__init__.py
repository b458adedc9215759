"""What should not be learned: near duplicates, bars over eyes, enlarged pictures; and what is set aside."""
