"""Chat: rendering a conversation as inference does, and telling which of its tokens teach."""
