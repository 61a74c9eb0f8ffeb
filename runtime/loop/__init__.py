"""The engine's loop: steps run in one thread while another chooses the next and hands out what the last one gave."""
