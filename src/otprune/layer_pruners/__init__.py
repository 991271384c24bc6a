"""Methods that drop visual tokens inside the language model, one file each."""
