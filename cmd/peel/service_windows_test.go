package main

func notified() {}
