"""The decode cycle: draft, verify, commit, and the policy that spends it."""
