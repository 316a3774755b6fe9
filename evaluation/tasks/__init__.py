"""What each task of making video is asked: measures of videos, claims and oracle states, each with what a frozen and a real clip score."""
