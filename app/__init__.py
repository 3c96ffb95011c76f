"""The Streamlit app: walk through a run, from the machine's tape to the circuit behind a prediction."""
