/* faults.h: what goes wrong in a simulated run. */
#ifndef CISTERN_TESTS_SIM_FAULTS_H
#define CISTERN_TESTS_SIM_FAULTS_H

struct sim_cluster;
struct sim_proc;
/* Draws whether something goes wrong now, and what. Most calls do nothing. */
void sim_faults_step(struct sim_cluster *c);
/* A process came back: it may be doomed to die again while it recovers. */
void sim_faults_started(struct sim_proc *p);
/* Undoes all: links whole, media quick, processes going on or due to start. */
void sim_faults_heal(struct sim_cluster *c);

#endif
