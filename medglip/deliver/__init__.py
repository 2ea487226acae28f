"""What leaves medglip: overlays and pages. Knows scenes, reports and figures; trains nothing."""
