"""Present an evaluation to people: a report page with figures and cautions, and a contact sheet of findings."""
