"""What `relive doctor` looks at; nothing here changes anything."""
