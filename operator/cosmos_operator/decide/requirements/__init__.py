"""Requirements of a job that somebody else must meet, and may meet at any time: none of them fails the job."""
