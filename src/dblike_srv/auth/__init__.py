"""Who a user is: plugins that check credentials, and the throttle before them."""
