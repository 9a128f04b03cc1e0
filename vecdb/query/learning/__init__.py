"""How wide the searches of a collection must be, learned from queries beside its rows and from those that are asked."""
