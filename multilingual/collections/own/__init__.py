"""People's own data as collections: folders of files, and archives of pictures with their captions."""
