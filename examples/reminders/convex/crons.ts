import { cronJobs } from "convex/server";
import { internal } from "./_generated/api";

const crons = cronJobs();

crons.daily("remove old reminders", { hourUTC: 3, minuteUTC: 30 }, internal.reminders.tidy, {});

export default crons;
