"""What keyrelay is made of and how it is packed: the lock, licences, bill of materials, wheel."""
