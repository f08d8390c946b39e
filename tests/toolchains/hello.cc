#include <thread>
#include <iostream>
#include <stdexcept>
#include <cmath>
int main(){ int r=0; std::thread t([&]{try{throw std::runtime_error("x");}catch(std::exception&e){std::cout<<e.what()<<std::sin(1.0)<<"\n";r=1;}}); t.join(); return !r; }
