"""Tasks that cost microseconds a step: navigation, bandits, tabular MDPs, pendulum and cart-pole."""
