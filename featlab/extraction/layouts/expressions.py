"""One set of names for the basic expressions, so that caches of different data sets have the same classes."""

NEUTRAL, ANGER, DISGUST, FEAR = "neutral", "anger", "disgust", "fear"
HAPPINESS, SADNESS, SURPRISE, OTHER = "happiness", "sadness", "surprise", "other"

FER2013 = (ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE, NEUTRAL)
"""By FER2013's and ExpW's own number, from 0."""
RAF_DB = (SURPRISE, FEAR, DISGUST, HAPPINESS, SADNESS, ANGER, NEUTRAL)
"""By RAF-DB's own number, from 1."""
AFF_WILD2 = (NEUTRAL, ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE, OTHER)
"""By Aff-Wild2's own number, from 0; earlier releases have the first seven."""
