"""What services say to each other: claims, events and the topics they travel on."""
